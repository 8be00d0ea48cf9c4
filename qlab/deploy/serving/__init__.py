"""A server under load, simulated: who arrives, who is admitted to the KV cache, what a step takes, who waits how long.

`traffic` draws requests, `simulation` serves them by continuous batching with a step time that it is given, `engine`
makes both from a workload, `load` finds the highest rate that meets a target. Knows nothing of GPUs and prices.
"""
