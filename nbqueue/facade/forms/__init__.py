"""Dispatch forms as data: fields made from a signature, and what people put into them."""
