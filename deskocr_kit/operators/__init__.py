"""Implementations for the slots of the network: substitutes, their proof, the plan, other models."""
