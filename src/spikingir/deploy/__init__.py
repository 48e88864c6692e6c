"""From a spiking network to one that runs as pure 0/1 spikes: folding, the folded network, and the engines."""
