#!/usr/bin/env node
import { runCtl } from '../src/cli/ctl.ts'
import { openTerminal } from '../src/cli/terminal.ts'

// `nexusctl … | head` ends quietly; output that is lost for another reason is a failure.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit()
    if (stream === process.stdout) process.stderr.write(`nexusctl: cannot write the result: ${error.message}\n`)
    process.exit(1)
  })
}

process.exitCode = await runCtl(process.argv.slice(2), {
  env: process.env,
  cwd: () => process.cwd(),
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
  isWatched: process.stderr.isTTY === true,
  terminal: process.stdin.isTTY && process.stdout.isTTY ? () => openTerminal(process.stdin, process.stdout) : undefined,
})
