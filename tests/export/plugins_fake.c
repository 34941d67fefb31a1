// A fake CUDA driver for tests/export/test_plugins_contract.py: it logs the launches.
#include <stdint.h>
#include <string.h>

enum { HEADER = 10, MOST = 64 };
int counts[MOST];              // number of parameters of the i-th launch; a real driver reads it from the machine code
uint64_t launches[MOST][HEADER + MOST];
char names[MOST][64];          // function names: the i-th has the handle i + 1
int launched, loaded, found, code; // code: what a launch returns

int cuModuleLoadData(void **module, const void *image) {
  if (memcmp(image, "\177ELF", 4)) return 200;
  *module = (void *)(uintptr_t)(++loaded);
  return 0;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
  strncpy(names[found], name, 63);
  *function = (void *)(uintptr_t)(++found);
  return 0;
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  uint64_t *log = launches[launched];
  uint64_t header[HEADER] = {(uintptr_t)function, gx, gy, gz, bx, by, bz, shared, (uintptr_t)stream, (uintptr_t)extra};
  memcpy(log, header, sizeof header);
  for (int i = 0; i < counts[launched]; i++) memcpy(log + HEADER + i, parameters[i], 8);
  launched++;
  return code;
}
