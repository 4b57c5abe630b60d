"""The network: base, hubs, adapters, face encoder."""
