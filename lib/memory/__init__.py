"""The memory contract: what the host leaves, the cap, the meter, and the capped child with its parent."""
