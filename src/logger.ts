/** What the parts ask of a logger: pino's shape, one line a problem. */
export interface Logger {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
}

export const silentLogger: Logger = { error() {}, warn() {}, info() {}, debug() {} }
