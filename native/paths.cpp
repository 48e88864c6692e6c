#include "paths.hpp"

#include <vector>

namespace spikingir {

#define SPIKINGIR_DECLARE(path)                                                \
  namespace path {                                                             \
  void analog_row(const AnalogLayer& layer, int y);                            \
  void phased_row(const PhasedLayer& layer, int y);                            \
  void clocked_row(const ClockedLayer& layer, int y, const Scratch& scratch);  \
  void clocked_few_row(const ClockedLayer& layer, int y);                      \
  constexpr Kernels kernels{#path, analog_row, phased_row, clocked_row, clocked_few_row}; \
  }

SPIKINGIR_DECLARE(portable)
#ifdef __x86_64__
SPIKINGIR_DECLARE(avx2)
SPIKINGIR_DECLARE(avx512)
#endif

static std::vector<Kernels> usable() {
  std::vector<Kernels> found;
#ifdef __x86_64__
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2") &&
      __builtin_cpu_supports("avx512vnni"))
    found.push_back(avx512::kernels);
  if (avx2) found.push_back(avx2::kernels);
#endif
  found.push_back(portable::kernels);
  return found;
}

std::span<const Kernels> paths() {
  static const std::vector<Kernels> found = usable();
  return found;
}

}  // namespace spikingir
