"""One job as it runs: the pipeline from claim to report, what the job sees, and what it says."""
