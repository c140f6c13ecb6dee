/** Where a command's one result goes: to stdout, as JSON for scripts or as text for people. */

export interface Output {
  /** @param text makes the text for people; not called when the result goes out as JSON */
  result(value: unknown, text: () => string): void
}

/** One JSON document on a line of its own. */
export function jsonOutput(write: (text: string) => void): Output {
  return { result: (value) => write(`${JSON.stringify(value)}\n`) }
}

/** Text, ended with a newline. */
export function textOutput(write: (text: string) => void): Output {
  return { result: (_value, text) => write(`${text()}\n`) }
}
