#include "paths.hpp"

#include <vector>

#include "checks.hpp"

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace spikingir {

#define SPIKINGIR_DECLARE(path, has_narrow_sums)                                                  \
  namespace path {                                                                                \
  void analog_row(const AnalogLayer& layer, int y);                                               \
  void phased_row(const PhasedLayer& layer, int y);                                               \
  void integer_row(const IntegerLayer& layer, int y, int block, int end);                         \
  void clocked_tile(const ClockedLayer& layer, int y, int x, const Scratch& scratch);             \
  void clocked_columns_tile(const ClockedLayer& layer, int y, int x, const Scratch& scratch);     \
  void clocked_few_row(const ClockedLayer& layer, int y);                                         \
  constexpr Kernels kernels{#path,       has_narrow_sums, analog_row,           phased_row,       \
                            integer_row, clocked_tile,    clocked_columns_tile, clocked_few_row}; \
  }

SPIKINGIR_DECLARE(portable, false)
#ifdef __x86_64__
SPIKINGIR_DECLARE(avx2, true)
SPIKINGIR_DECLARE(avxvnni, false)
SPIKINGIR_DECLARE(avx512, false)
#endif

#ifdef __x86_64__
// Not among the names that every compiler's __builtin_cpu_supports knows.
static bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

static std::vector<Kernels> usable() {
  std::vector<Kernels> found;
#ifdef __x86_64__
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2") &&
      __builtin_cpu_supports("avx512vnni"))
    found.push_back(avx512::kernels);
  if (avx2 && has_avxvnni()) found.push_back(avxvnni::kernels);
  if (avx2) found.push_back(avx2::kernels);
#endif
  found.push_back(portable::kernels);
  return found;
}

std::span<const Kernels> paths() {
  static const std::vector<Kernels> found = usable();
  return found;
}

const Kernels& choose(const std::string& path) {
  for (const Kernels& kernels : paths())
    if (path.empty() || path == kernels.name) return kernels;
  refuse("this processor has no path '" + path + "'");
}

}  // namespace spikingir
