"""Seconds of whole models: each layer on the roofline, what published stacks reach of it, and how well that predicts.

`scheme` says what a precision moves and computes with, `device` what a GPU offers, `phases` adds up prefill and decode;
`published` reads the settings of published rows, `efficiency` is fitted to them, `validation` compares.
Needs the specs and `qlab.deploy.roofline` alone.
"""
