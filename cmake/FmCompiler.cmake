# Language level, warnings and sanitizers of every target of this project.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

add_library(fm_options INTERFACE)
target_compile_definitions(fm_options INTERFACE _GNU_SOURCE
    $<$<BOOL:${FM_FAULTS}>:FM_FAULTS>)
target_compile_options(fm_options INTERFACE
    $<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion
    -Wstrict-prototypes;-Wmissing-prototypes;-Wcast-qual;-Wwrite-strings
    -Wpointer-arith;-Wformat=2;-Wundef;-Wvla;-Wswitch-enum;-fno-common
    -fvisibility=hidden>
    $<$<AND:$<BOOL:${FM_WERROR}>,$<COMPILE_LANGUAGE:C>>:-Werror>)
if(FM_SANITIZE)
    target_compile_options(fm_options INTERFACE
        $<$<COMPILE_LANGUAGE:C>:-fsanitize=${FM_SANITIZE}
        -fno-omit-frame-pointer;-fno-sanitize-recover=all>)
    target_link_options(fm_options INTERFACE -fsanitize=${FM_SANITIZE})
endif()
