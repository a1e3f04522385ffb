"""`dibs top`: a live screen of queues, workers and failures. Costs by the worker and the look, not by the job."""
