#!/usr/bin/env node
import { runNexusd } from '../src/cli/nexusd.ts'

process.exitCode = await runNexusd(process.argv.slice(2))
