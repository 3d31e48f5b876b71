"""Devices, processes and signals: the mesh, several hosts, preemption, trees."""
