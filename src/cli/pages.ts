/** The man pages of both programs. */
import { ctlProgram } from './ctl.ts'
import { manPage, type PageInfo } from './manpage.ts'
import { nexusdProgram } from './nexusd.ts'

const NEXUS_DATA = ['NEXUS_DATA', 'the data directory, where --data does not say'] as const

const ctlInfo: PageInfo = {
  section: 1,
  exits: [
    ['0', 'done; for check: yes; for fsck and scrub: nothing wrong is known'],
    ['1', 'failed, with one line on stderr that says what to do; for check also no, for fsck and scrub also something found'],
    ['2', 'wrong usage; nothing was done'],
  ],
  environment: [NEXUS_DATA],
  files: [['/run/nexus', 'the sockets on which users reach the daemons of this machine']],
  seeAlso: ['nexusd(8)'],
}

const nexusdInfo: PageInfo = {
  section: 8,
  exits: [
    ['0', 'done'],
    ['1', 'failed, with one line on stderr that says what to do; for fsck also something found'],
    ['2', 'wrong usage; nothing was done'],
  ],
  environment: [
    NEXUS_DATA,
    ['NEXUS_LOG', 'what the log holds: fatal, error, warn (the default), info, debug, trace or silent'],
    ['XDG_DATA_HOME', 'where the data of a user other than root lies when nothing else says so'],
  ],
  files: [
    ['/var/lib/nexus', "root's data directory"],
    ['nexusd.log', 'in the data directory: the log of a daemon that was started with --background'],
  ],
  seeAlso: ['nexusctl(1)', 'fuse(4)', 'mount(8)'],
}

/** Files of man pages, by name. */
export function pages(): { file: string; content: string }[] {
  const host = { env: {}, cwd: () => '/', stdout: () => undefined, stderr: () => undefined }
  return [
    { file: 'nexusctl.1', content: manPage(ctlProgram(host), ctlInfo) },
    { file: 'nexusd.8', content: manPage(nexusdProgram([]), nexusdInfo) },
  ]
}
