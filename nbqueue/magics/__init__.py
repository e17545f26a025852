"""What ``%load_ext nbqueue`` brings: ``%nbq``, ``%%job``, ``%config NBQueue``, and their completion."""
