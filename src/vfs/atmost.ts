/** A wait that ends: what the kernel waits for may itself wait for a lock of the thread that asked. */

/** Resolves with `promise`, or after `ms` milliseconds, when `onLate` has been called; rejects as `promise` does before. */
export async function atMost(promise: Promise<void>, ms: number, onLate: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      onLate()
      resolve()
    }, ms)
  })
  try {
    await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
