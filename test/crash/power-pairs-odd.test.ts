/** Loss of power: half of the sequences of two operations. */
import { testPairs } from './powerpairs.ts'

testPairs(1)
