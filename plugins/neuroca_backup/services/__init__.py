"""What the system does: verbs over engines, stores, stages, keyring and catalog."""
