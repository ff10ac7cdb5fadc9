"""The memory tiers of NCA: what the engines of working, episodic and semantic memory share.

Their backups are logical and portable: an item (a key, a document, a vector) can be found and
restored alone, by its session, its user or its time.
"""
