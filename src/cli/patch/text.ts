/** A patch as git writes it (git-diff(1), "Generating patch text with -p"), one character a byte. */
import type { LineEdit } from './lines.ts'

const CONTEXT = 3
export const NOTHING = '/dev/null'

/** Characters that git writes with a letter (quote.c). */
const letters: Readonly<Record<string, string>> = {
  '\u0007': 'a',
  '\b': 'b',
  '\t': 't',
  '\n': 'n',
  '\v': 'v',
  '\f': 'f',
  '\r': 'r',
  '"': '"',
  '\\': '\\',
}

/** A name as git writes it with core.quotePath: in quotes and escaped where it has more than printable ASCII. */
export function quoted(name: string): string {
  const escaped = escapedName(name)
  return escaped === name ? name : `"${escaped}"`
}

/** The same for a patch, where names with spaces have quotes too: git reads both, and GNU patch cannot tell where such a name ends. */
export function quotedInPatch(name: string): string {
  return name.includes(' ') ? `"${escapedName(name)}"` : quoted(name)
}

function escapedName(name: string): string {
  return name.replace(/[^ !#-[\]-~]/g, (character) => {
    const letter = letters[character]
    return letter === undefined ? `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}` : `\\${letter}`
  })
}

export function fileLine(sign: '---' | '+++', name: string): string {
  return `${sign} ${name === NOTHING ? NOTHING : quotedInPatch(`${sign === '---' ? 'a' : 'b'}/${name}`)}\n`
}

/** The hunks of a file: its edits with three lines around each. */
export function* hunks(before: readonly string[], after: readonly string[], edits: readonly LineEdit[]): Generator<string> {
  let group: LineEdit[] = []
  for (const edit of edits) {
    const last = group.at(-1)
    if (last !== undefined && edit.oldStart - last.oldEnd > 2 * CONTEXT) {
      yield* hunk(before, after, group)
      group = []
    }
    group.push(edit)
  }
  if (group.length > 0) yield* hunk(before, after, group)
}

function* hunk(before: readonly string[], after: readonly string[], edits: readonly LineEdit[]): Generator<string> {
  const [first, last] = [edits[0] as LineEdit, edits.at(-1) as LineEdit]
  const lead = Math.min(CONTEXT, first.oldStart)
  const oldStart = first.oldStart - lead
  const oldEnd = Math.min(before.length, last.oldEnd + CONTEXT)
  const newStart = first.newStart - lead
  const newEnd = last.newEnd + oldEnd - last.oldEnd
  yield `@@ -${range(oldStart, oldEnd)} +${range(newStart, newEnd)} @@\n`
  let at = oldStart
  for (const edit of edits) {
    yield* marked(' ', before, at, edit.oldStart)
    yield* marked('-', before, edit.oldStart, edit.oldEnd)
    yield* marked('+', after, edit.newStart, edit.newEnd)
    at = edit.oldEnd
  }
  yield* marked(' ', before, at, oldEnd)
}

function* marked(mark: string, lines: readonly string[], from: number, to: number): Generator<string> {
  for (let at = from; at < to; at++) {
    const line = lines[at] as string
    yield line.endsWith('\n') ? `${mark}${line}` : `${mark}${line}\n\\ No newline at end of file\n`
  }
}

/** Lines count from 1; a range without lines is named by the line before it. */
function range(start: number, end: number): string {
  const count = end - start
  return count === 1 ? `${start + 1}` : `${count === 0 ? start : start + 1},${count}`
}
