#!/usr/bin/env node
import { runNexusd } from '../src/cli/nexusd.ts'

// A daemon whose terminal or reader is gone goes on: nobody is left to be told.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)

process.exitCode = await runNexusd(process.argv.slice(2))
