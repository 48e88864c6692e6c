// The choice among the paths: the same kernels, compiled for different processors.
#pragma once

#include <span>
#include <string>

#include "kernels.hpp"

namespace spikingir {

// Those that this processor can run, the best one first.
std::span<const Kernels> paths();

// One of them by its name, the best one without a name.
const Kernels& choose(const std::string& path);

}  // namespace spikingir
