"""Which instance and which precision: every option with memory, latency and dollars, and why each loser lost.

`support` knows which GPU runs which precision, `replica` one copy of the model under a workload, `options` and `plan`
rank them, `compare` sets two side by side, `advice` and `tables` say it in words; `choosing` finds the method for a
GPU, its traffic and a floor of quality. Needs `speed`, `serving` and `quality`.
"""
