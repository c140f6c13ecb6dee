/** The package that this file belongs to, found from sources and from any build directory alike. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { assert } from '../errors.ts'

/** The directory that holds package.json. */
export function packageRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(dir, 'package.json'))) {
    assert(dir !== '/', 'package.json lies above the program')
    dir = dirname(dir)
  }
  return dir
}

/** The version of the program, as `--version` and `status` tell it. */
export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string }
  return version
}
