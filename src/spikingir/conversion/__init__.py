"""Conversion of conventional networks to spiking ones."""
