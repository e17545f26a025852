"""What users hold: managers, queues and receipts; and what stands between them and a store."""
