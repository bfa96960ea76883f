"""ValidatingAdmissionPolicy: rules written as expressions (CEL), and the match conditions of webhooks.

`expressions` gives expressions what they may look at, `plugin` finds the policies of a write and judges by them.
"""
