/** A patch and its counts, from pairs of files: one pair is in memory at a time. */
import { createHash } from 'node:crypto'
import { editsBetween, type LineEdit, linesOf } from './lines.ts'
import type { Pair, Sides } from './pairs.ts'
import type { FoundSide, Side, SideName } from './side.ts'
import { fileLine, hunks, NOTHING, quotedInPatch } from './text.ts'

/** Larger files are not compared by lines: both sides, their lines and edits take some ten times as much. */
export const PATCH_FILE_BYTES_MAX = 8 * 1024 * 1024
/** git takes a file with a NUL among so many bytes for binary (xdiff-interface.c). */
const LOOKED_AT = 8000
const NO_HASH = '0'.repeat(40)

/** What one pair comes to. */
export interface Part {
  change: 'added' | 'removed' | 'modified' | 'renamed'
  name: SideName
  /** the name before, of what was renamed */
  from?: SideName
  /** lines; null where they are not counted: binary, or too large */
  added: number | null
  removed: number | null
  /** why they are not */
  uncounted: 'binary' | 'too large' | null
  /** bytes; 0 where it is not */
  oldSize: number
  newSize: number
}

/** One side of a pair, read. */
interface Text {
  size: number
  hash: string
  /** undefined: binary, or too large */
  lines: string[] | undefined
  isLarge: boolean
}

const ABSENT: Text = { size: 0, hash: NO_HASH, lines: [], isLarge: false }

/**
 * @param write takes the text of the patch, one character a byte
 * @returns undefined when a patch has nothing to say of the pair: other rights or times, or it has gone on both sides
 */
export function writePart(pair: Pair, sides: Sides, write: (text: string) => void): Part | undefined {
  const { old, new: fresh, mayDiffer } = pair
  const isMove = old !== undefined && fresh !== undefined && old.name !== fresh.name
  const isSameMode = old?.found.mode === fresh?.found.mode
  if (!mayDiffer && !isMove && isSameMode) return undefined
  const before = mayDiffer ? readText(old, sides.before) : ABSENT
  const after = mayDiffer ? readText(fresh, sides.after) : ABSENT
  // Programs may remove what is read of the live state.
  if (before === undefined || after === undefined) {
    if (before === undefined && after === undefined) return undefined
    if (old !== undefined && fresh !== undefined) {
      return writePart({ ...(before === undefined ? { new: fresh } : { old }), mayDiffer }, sides, write)
    }
    return undefined
  }
  const isSame = !mayDiffer || isSameText(before, after, old, fresh)
  if (isSame && old !== undefined && fresh !== undefined && !isMove && isSameMode) return undefined
  const edits = isSame || before.lines === undefined || after.lines === undefined ? [] : editsBetween(before.lines, after.lines)
  writeHeader(pair, { before, after, isSame, edits }, write)
  const isCounted = isSame || (before.lines !== undefined && after.lines !== undefined)
  const sum = (lines: (edit: LineEdit) => number): number => edits.reduce((total, edit) => total + lines(edit), 0)
  const isLarge = before.isLarge || after.isLarge
  if (!isSame) {
    if (!isCounted) writeUncounted(pair, isLarge, write)
    else if (edits.length > 0) {
      write(fileLine('---', old?.name ?? NOTHING))
      write(fileLine('+++', fresh?.name ?? NOTHING))
      for (const text of hunks(before.lines ?? [], after.lines ?? [], edits)) write(text)
    }
  }
  return {
    change: isMove ? 'renamed' : old === undefined ? 'added' : fresh === undefined ? 'removed' : 'modified',
    name: fresh?.name ?? old?.name ?? '',
    ...(isMove && { from: old.name }),
    added: isCounted ? sum((edit) => edit.newEnd - edit.newStart) : null,
    removed: isCounted ? sum((edit) => edit.oldEnd - edit.oldStart) : null,
    uncounted: isCounted ? null : isLarge ? 'too large' : 'binary',
    oldSize: old?.found.size ?? 0,
    newSize: fresh?.found.size ?? 0,
  }
}

type Half = { name: SideName; found: FoundSide } | undefined

function readText(half: Half, side: Side | undefined): Text | undefined {
  if (half === undefined) return ABSENT
  if (half.found.kind === 'symlink') {
    const target = side?.target(half.name)
    return target && textOf(target, true)
  }
  if (half.found.size > PATCH_FILE_BYTES_MAX) return { size: half.found.size, hash: NO_HASH, lines: undefined, isLarge: true }
  const content = side?.read(half.name, PATCH_FILE_BYTES_MAX)
  if (content !== undefined) return textOf(content, false)
  // It has grown since it was looked at, or is gone.
  const now = side?.look(half.name)
  return now?.kind === 'file' ? { size: now.size, hash: NO_HASH, lines: undefined, isLarge: true } : undefined
}

function textOf(content: Buffer, isTarget: boolean): Text {
  const hash = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
  const isBinary = !isTarget && content.subarray(0, LOOKED_AT).includes(0)
  return { size: content.length, hash, lines: isBinary ? undefined : linesOf(content.toString('latin1')), isLarge: false }
}

/** Of large files the daemon's word is taken that they differ. */
function isSameText(before: Text, after: Text, old: Half, fresh: Half): boolean {
  return old !== undefined && fresh !== undefined && !before.isLarge && !after.isLarge && before.hash === after.hash
}

interface Compared {
  before: Text
  after: Text
  isSame: boolean
  edits: readonly LineEdit[]
}

function writeHeader({ old, new: fresh }: Pair, compared: Compared, write: (text: string) => void): void {
  const [from, to] = [old?.name ?? fresh?.name ?? '', fresh?.name ?? old?.name ?? '']
  write(`diff --git ${quotedInPatch(`a/${from}`)} ${quotedInPatch(`b/${to}`)}\n`)
  if (old === undefined) write(`new file mode ${fresh?.found.mode}\n`)
  else if (fresh === undefined) write(`deleted file mode ${old.found.mode}\n`)
  else if (old.found.mode !== fresh.found.mode) write(`old mode ${old.found.mode}\nnew mode ${fresh.found.mode}\n`)
  if (from !== to) {
    write(`similarity index ${similarity(compared)}%\nrename from ${quotedInPatch(from)}\nrename to ${quotedInPatch(to)}\n`)
  }
  const { before, after, isSame } = compared
  if (isSame) return
  const mode = old !== undefined && old.found.mode === fresh?.found.mode ? ` ${old.found.mode}` : ''
  // Large files have no hash. A short one makes git apply refuse the file (apply_binary in apply.c); a whole one of zeros would remove it.
  const hashes = before.isLarge || after.isLarge ? '0000000..0000000' : `${before.hash}..${after.hash}`
  write(`index ${hashes}${mode}\n`)
}

/** As git says that there is more than the patch has: so git apply refuses it, rather than leave that out. */
function writeUncounted({ old, new: fresh }: Pair, isLarge: boolean, write: (text: string) => void): void {
  const nameOf = (half: Half, side: 'a' | 'b'): string => (half === undefined ? NOTHING : quotedInPatch(`${side}/${half.name}`))
  write(`Binary files ${nameOf(old, 'a')} and ${nameOf(fresh, 'b')} differ\n`)
  if (isLarge) write(`(larger than ${PATCH_FILE_BYTES_MAX} bytes: not compared by lines)\n`)
}

/** How much of the larger side is in both, in percent. */
function similarity({ before, after, isSame, edits }: Compared): number {
  if (isSame) return 100
  if (before.lines === undefined || after.lines === undefined) return 0
  const largest = Math.max(before.size, after.size)
  const gone = edits.reduce((sum, edit) => sum + bytesIn(before.lines ?? [], edit.oldStart, edit.oldEnd), 0)
  return largest === 0 ? 100 : Math.min(99, Math.floor(((before.size - gone) * 100) / largest))
}

function bytesIn(lines: readonly string[], from: number, to: number): number {
  let sum = 0
  for (let at = from; at < to; at++) sum += (lines[at] as string).length
  return sum
}
