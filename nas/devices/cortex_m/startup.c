/* Where a Cortex-M begins: the vector table, then newlib's start, which calls main. */
extern int stack_top;
extern void _start(void);

__attribute__((noreturn)) void reset_handler(void) {
  _start();
  for (;;) {
  }
}

__attribute__((noreturn)) void fault_handler(void) {
  for (;;) {
  }
}

__attribute__((section(".vectors"), used)) static void* const vectors[16] = {
    (void*)&stack_top, (void*)reset_handler, (void*)fault_handler, (void*)fault_handler,
};

/* The first timer of the board, which counts down 25 times a microsecond. In QEMU with -icount
   shift=0 an instruction takes a nanosecond, so that a tick is 40 instructions. */
#define TIMER ((volatile unsigned int*)0x40000000)

void start_timer(void) {
  TIMER[2] = 0xffffffffu;
  TIMER[1] = 0xffffffffu;
  TIMER[0] = 1;
}

unsigned int timer_ticks(void) { return 0xffffffffu - TIMER[1]; }
