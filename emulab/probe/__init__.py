"""Sends probes and watches them: crafting, taps, the engines.  The only place that imports Scapy."""
