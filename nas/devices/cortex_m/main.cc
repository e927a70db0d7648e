// Runs a network once and prints what it answers, a line of JSON.
#include <cstdio>
#include <cstring>

#include "model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {
constexpr int kArenaBytes = @arena_bytes@;
alignas(16) unsigned char arena[kArenaBytes];
}  // namespace

// Of the board: see startup.c.
extern "C" void start_timer();
extern "C" unsigned int timer_ticks();

int main() {
  tflite::MicroMutableOpResolver<@operator_count@> resolver;
@operators@
  tflite::MicroInterpreter interpreter(tflite::GetModel(model_data), resolver, arena, kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    std::printf("{\"error\": \"the arena of %d bytes is too small\"}\n", kArenaBytes);
    return 1;
  }
  TfLiteTensor* input = interpreter.input(0);
  if (input->bytes != image_values) {
    std::printf("{\"error\": \"the network takes %u bytes\"}\n", (unsigned)input->bytes);
    return 1;
  }
  std::memcpy(input->data.int8, image_data, image_values);
  start_timer();
  const TfLiteStatus status = interpreter.Invoke();
  const unsigned int ticks = timer_ticks();
  if (status != kTfLiteOk) {
    std::printf("{\"error\": \"it cannot be run\"}\n");
    return 1;
  }
  const TfLiteTensor* output = interpreter.output(0);
  std::printf("{\"ticks\": %u, \"arena_used_bytes\": %u, \"outputs\": [", ticks,
              (unsigned)interpreter.arena_used_bytes());
  for (unsigned i = 0; i < output->bytes; ++i) {
    std::printf("%s%d", i ? ", " : "", output->data.int8[i]);
  }
  std::printf("]}\n");
  return 0;
}
