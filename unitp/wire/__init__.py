"""What the driver and the ranks say to each other, and how they prove who they are."""
