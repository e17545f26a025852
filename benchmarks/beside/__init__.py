"""Other queues as they are measured beside nbqueue: each by its public interface, nothing tuned against it."""
