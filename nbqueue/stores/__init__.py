"""The stores that come with nbqueue; each module is one, or a part that they share."""
