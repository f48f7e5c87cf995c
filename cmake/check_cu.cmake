# Compiles SOURCE for sm_ARCH and fails on an error or a register spill. Prints registers and shared memory per kernel.
string(REPLACE ";" " " flags "${FLAGS}")
separate_arguments(flags UNIX_COMMAND "${flags}")
execute_process(
  COMMAND ${NVCC} ${flags} -gencode=arch=compute_${ARCH},code=sm_${ARCH} -Xptxas=-v -cubin ${SOURCE} -o ${OUT}
  RESULT_VARIABLE failed OUTPUT_VARIABLE log ERROR_VARIABLE log)
file(REMOVE ${OUT})
message("${log}")
if(failed)
  message(FATAL_ERROR "${SOURCE}: does not compile for sm_${ARCH}")
endif()
string(REGEX MATCHALL "[1-9][0-9]* bytes spill (stores|loads)" spills "${log}")
if(spills)
  message(FATAL_ERROR "${SOURCE}: expected no register spills for sm_${ARCH}, got ${spills}")
endif()
