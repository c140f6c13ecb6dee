/** A terminal that is drawn on again and again, until a key ends it. */

export interface Terminal {
  /** Shows these lines in place of the ones before, as many as there is room for. */
  draw(text: string): void
  /** resolves when somebody pressed q or ^C */
  readonly quit: Promise<void>
  /** Gives the terminal back as it was. */
  close(): void
}

const HOME = '\u001b[H'
const CLEAR = '\u001b[2J'
const END_OF_LINE = '\u001b[K'
const END_OF_SCREEN = '\u001b[J'
/** In raw mode ^C and ^D are bytes like any other. */
const QUIT = ['q', 'Q', '\u0003', '\u0004']

export function openTerminal(input: NodeJS.ReadStream, output: NodeJS.WriteStream): Terminal {
  input.setRawMode(true)
  const quit = new Promise<void>((resolve) => {
    input.on('data', (keys: Buffer) => {
      if (QUIT.some((key) => keys.includes(key))) resolve()
    })
    input.once('end', resolve)
  })
  output.write(CLEAR)
  return {
    quit,
    draw: (text) => {
      const lines = text.split('\n').slice(0, Math.max(1, output.rows - 1))
      output.write(`${HOME}${lines.map((line) => line.slice(0, output.columns) + END_OF_LINE).join('\n')}\n${END_OF_SCREEN}`)
    },
    close: () => {
      input.setRawMode(false)
      input.pause()
    },
  }
}
