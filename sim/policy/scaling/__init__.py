"""Autoscaling rules: metrics in, a number of replicas out."""
