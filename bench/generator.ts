/** A tree of files as a source repository has them: names, depths and sizes of that kind, the same in every run. */

const WORDS =
  'const let function return if else for while import export from class interface type string number boolean undefined null ' +
  'value index length result error message path file name node parent child children list map set key entry buffer offset ' +
  'size count start end next previous state context options request response handler callback promise async await throw new'
const POOL_BYTES = 2 ** 20
const FILES_A_DIRECTORY = 20
const DIRECTORIES_A_MODULE = 10
/** Half of the files are smaller, as in most repositories; the mean is about twice that. */
const MEDIAN_BYTES = 2000
const SIGMA = 1.2
const [BYTES_MIN, BYTES_MAX] = [60, 400_000]

/** mulberry32: small, fast, and the same everywhere. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 0x9e3779b1) + 0x6d2b79f5) | 0
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  /** An integer in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.next() * limit)
  }
}

export class SourceTree {
  readonly #pool: string

  /** @param seed of what the files say: their names and sizes are the same with any */
  constructor(seed = 1) {
    const random = new Random(seed)
    const words = WORDS.split(' ')
    const parts: string[] = []
    for (let bytes = 0; bytes < POOL_BYTES; ) {
      const line = Array.from({ length: 3 + random.below(9) }, () => words[random.below(words.length)]).join(' ')
      parts.push(line)
      bytes += line.length + 1
    }
    this.#pool = parts.join('\n')
  }

  /** Where file `i` lies. */
  path(i: number): string {
    const directory = Math.floor(i / FILES_A_DIRECTORY)
    const module = Math.floor(directory / DIRECTORIES_A_MODULE)
    return `module${module}/src/part${directory % DIRECTORIES_A_MODULE}/file-${i}.ts`
  }

  /** What it says in a version; versions differ in one line. */
  content(i: number, version: number): string {
    const random = new Random(i + 2)
    // Box and Muller: a normal deviate from two uniform ones.
    const normal = Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
    const bytes = Math.round(Math.min(BYTES_MAX, Math.max(BYTES_MIN, MEDIAN_BYTES * Math.exp(SIGMA * normal))))
    const start = random.below(POOL_BYTES - BYTES_MAX)
    return `// file ${i}, version ${version}\n${this.#pool.slice(start, start + bytes)}\n`
  }
}
