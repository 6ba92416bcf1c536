"""The SimPy world: gateway, clients, replicas."""
