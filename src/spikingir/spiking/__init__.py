"""The spiking core: neurons, the clock, the readout. Imports torch and nothing else."""
