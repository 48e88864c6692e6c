// The choice among the paths: the same kernels, compiled for different processors.
#pragma once

#include <span>

#include "kernels.hpp"

namespace spikingir {

// Those that this processor can run, the best one first.
std::span<const Kernels> paths();

}  // namespace spikingir
