import { testCrashes } from '../../support/crashes.ts'

testCrashes('S3 on Ceph')
