"""What quantization does to answers, and how to live with it: measured answers, routing between tiers, monitoring.

`measured` holds the answers of the embedded model, `routing` and `fleet` send requests to a tier and price it;
`degradation` makes a deployment worse, `checks` and `power` look for it, `monitoring` tells which check finds what.
Needs `serving` for the traffic.
"""
