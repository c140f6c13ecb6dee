/**
 * What the parts ask of a logger: pino's shape, one line a problem. A line has numbers (of workspaces, inodes, segments,
 * chunks), never content, and no name out of the filesystem.
 */
export interface Logger {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
}

export const silentLogger: Logger = { error() {}, warn() {}, info() {}, debug() {} }

type Level = keyof Logger

/** What was said lately in one place of the program. */
interface Said {
  /** nothing more before this, as of `performance.now` */
  until: number
  leftOut: number
  last: object
}

const QUIET_MS = 1000
/** Messages may have numbers in them: so many are remembered. */
const SAID_MAX = 1000

/**
 * Says the same at most once a second, however often it happens: the first at once, the last of a second at its end, with
 * the number of those in between in `left_out`. What failed is told apart by message and operation.
 * @param quietMs for tests
 */
export function limited(logger: Logger, quietMs = QUIET_MS): Logger {
  const said = new Map<string, Said>()
  const say = (level: Level, fields: object, message: string): void => {
    const key = `${level} ${'op' in fields ? fields.op : ''} ${message}`
    const now = performance.now()
    const before = said.get(key)
    if (before === undefined || now >= before.until) {
      if (said.size >= SAID_MAX) said.clear()
      said.set(key, { until: now + quietMs, leftOut: 0, last: fields })
      logger[level](fields, message)
      return
    }
    before.last = fields
    if (before.leftOut++ === 0) setTimeout(() => catchUp(before, level, message), before.until - now).unref()
  }
  const catchUp = (one: Said, level: Level, message: string): void => {
    logger[level](one.leftOut === 1 ? one.last : { ...one.last, left_out: one.leftOut - 1 }, message)
    one.until = performance.now() + quietMs
    one.leftOut = 0
  }
  return {
    error: (fields, message) => say('error', fields, message),
    warn: (fields, message) => say('warn', fields, message),
    info: (fields, message) => say('info', fields, message),
    debug: (fields, message) => say('debug', fields, message),
  }
}
