/** The program `nexusctl`: its commands, and the one place where failures become words and an exit status. */
import { Command, CommanderError } from 'commander'
import { NexusError, toExitStatus } from '../errors.ts'
import { packageVersion } from '../host/version.ts'
import { addCompletionCommand } from './commands/completion.ts'
import { addForkCommand } from './commands/fork.ts'
import { addFsckCommand } from './commands/fsck.ts'
import { addGrantCommands } from './commands/grant.ts'
import { addGroupCommands } from './commands/group.ts'
import { addIdentityCommands } from './commands/identity.ts'
import { addModelCommands } from './commands/model.ts'
import { addQuotaCommands } from './commands/quota.ts'
import { addRestoreCommand } from './commands/restore.ts'
import { addScrubCommand } from './commands/scrub.ts'
import { addSnapshotCommands } from './commands/snapshot.ts'
import { addSpaceCommands } from './commands/space.ts'
import { addStatusCommands } from './commands/status.ts'
import { addTenantCommands } from './commands/tenant.ts'
import { addTopCommands } from './commands/top.ts'
import { addWorkspaceCommands } from './commands/workspace.ts'
import { printable } from './format.ts'
import { examples } from './options.ts'
import { AnswerIsNo, type GlobalOptions, type Host, openSession } from './session.ts'

/** Wrong usage, whether commander found it or the daemon (docs/cli-abi.md). */
const usageStatus = 2
/** The answer of `check` and `fsck`: not an error, but what a script branches on. */
const noStatus = 1

/**
 * Runs one command line.
 * @param argv the words after the program's name
 * @returns the exit status; whatever there was to say has been said
 */
export async function runCtl(argv: readonly string[], host: Host): Promise<number> {
  try {
    await ctlProgram(host).parseAsync(argv, { from: 'user' })
    return 0
  } catch (error) {
    // Commander has written its message, help or version already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : usageStatus
    if (error instanceof AnswerIsNo) return noStatus
    host.stderr(errorLine(messageOf(error)))
    return toExitStatus(error)
  }
}

/** The tree of commands; `--help`, completion and the man page are made from it. */
export function ctlProgram(host: Host): Command {
  const program = new Command('nexusctl')
  // Before the commands are added: they inherit these.
  program
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: host.stdout,
      writeErr: host.stderr,
      outputError: (text, write) => write(errorLine(text.replace(/^error: /, ''))),
    })
  program
    .description('Workspaces, snapshots, restores, forks and access rights of a mounted nexus filesystem.')
    .version(packageVersion(), '--version', 'print the version')
    .option('--json', 'print one JSON document (docs/cli-abi.md)')
    .option('--data <DIR>', "the daemon's data directory (default: NEXUS_DATA, the user's own, or that of the mount)")
    .addHelpText('after', `${pathHelp}\n${examples('snapshot /workspace/acme --name before-upgrade')}`)
  const open = () => openSession(program.opts<GlobalOptions>(), host)
  addWorkspaceCommands(program, open)
  addSnapshotCommands(program, open)
  addRestoreCommand(program, open)
  addForkCommand(program, open)
  addIdentityCommands(program, open)
  addGrantCommands(program, open)
  addGroupCommands(program, open)
  addModelCommands(program, open)
  addTenantCommands(program, open)
  addQuotaCommands(program, open)
  addStatusCommands(program, open)
  addSpaceCommands(program, open)
  addFsckCommand(program, open)
  addScrubCommand(program, open, host)
  addTopCommands(program, open)
  addCompletionCommand(program, host.stdout)
  return program
}

const pathHelp = `
A PATH is one in the filesystem (/workspace/acme), the same seen through the mount
(/mnt/nexus/workspace/acme), or relative to a current directory inside the mount.
A SNAPSHOT is a name, an id, or the start of an id that fits only one.
A SUBJECT is user:alice (or just alice), agent:coder-7, group:eng, tenant:acme, or user:* for all users.`

function messageOf(error: unknown): string {
  if (error instanceof NexusError) return error.message
  return `unexpected failure: ${error instanceof Error ? error.message : String(error)}`
}

/** One line, whatever names the message quotes. */
function errorLine(message: string): string {
  return `nexusctl: ${printable(message.trim().replace(/\s*\n\s*/g, ' '))}\n`
}
