/** What figures depend on besides the code: the machine, and what it is set to do by itself. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

const HALT_POLLING = '/sys/module/haltpoll/parameters/guest_halt_poll_ns'
const DAMON = '/sys/kernel/mm/damon/admin/kdamonds'

/** Processors, memory, versions. */
export function machine(): string {
  const model = (os.cpus()[0]?.model ?? 'unknown').trim()
  return `${os.cpus().length} × ${model}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}, Node ${process.versions.node}`
}

function read(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8').trim()
  } catch {
    return undefined // not every kernel has it, and not everybody may look
  }
}

function numbered(directory: string): string[] {
  try {
    return fs.readdirSync(directory).filter((name) => /^\d+$/.test(name))
  } catch {
    return []
  }
}

/** What the kernel's DAMON does to memory that is not used (pageout …); undefined where it does nothing. */
function damon(): string | undefined {
  const running = numbered(DAMON).map((name) => path.join(DAMON, name))
  const contexts = running
    .filter((kdamond) => read(path.join(kdamond, 'state')) === 'on')
    .flatMap((kdamond) => numbered(path.join(kdamond, 'contexts')).map((name) => path.join(kdamond, 'contexts', name, 'schemes')))
  if (contexts.length === 0) return undefined
  const actions = contexts.flatMap((schemes) =>
    numbered(schemes).map((name) => read(path.join(schemes, name, 'action')) ?? 'unknown'),
  )
  return actions.length > 0 ? [...new Set(actions)].join(', ') : 'it only watches'
}

/** How the machine is set; to be asked before a mount changes it. */
export function settings(): string {
  const nanos = read(HALT_POLLING)
  const polling = nanos === undefined ? 'no halt polling of guests' : `\`guest_halt_poll_ns\` ${nanos} before`
  const actions = damon()
  return `${polling}, DAMON ${actions === undefined ? 'off' : `on (${actions})`}`
}
