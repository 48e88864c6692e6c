"""The spiking core: neurons, codings, schedules, the spiking network and its readout."""
