"""A server under load: started or found, sent requests, listened to. Runs in the engine's Python."""
