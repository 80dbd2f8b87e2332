"""The information plane along training, and what of its phases can be claimed."""
